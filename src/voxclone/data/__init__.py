"""Speech for training: any corpus becomes a folder of clean clips with a manifest."""
