"""From a recording to a voice."""
