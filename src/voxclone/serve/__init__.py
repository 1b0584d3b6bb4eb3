"""The HTTP server: OpenAI's speech API, voices that are made and kept, and a page for both."""
