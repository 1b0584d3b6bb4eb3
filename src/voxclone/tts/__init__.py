"""Voice and text to speech: prompt, language model, acoustic head, generation."""
