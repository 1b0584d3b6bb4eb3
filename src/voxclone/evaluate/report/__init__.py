"""Reports: JSON as tables, drawings and pages."""
