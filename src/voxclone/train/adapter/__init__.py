"""Phase 2: adapt the frozen language model to an encoder (`voxclone train adapter`)."""
