"""Pictures: drawn with and without patches, kept, put side by side."""
