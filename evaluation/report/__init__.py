"""Reports: prompts, numbers, and the record of an evaluation."""
