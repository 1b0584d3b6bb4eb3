"""Reports: JSON as tables, plots and pages."""
