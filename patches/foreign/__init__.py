"""What other programs made of a model: weight files and adapters in their spellings, as changes of our parameters."""
