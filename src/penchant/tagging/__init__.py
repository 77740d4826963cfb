"""Texts to tags: the bundle a fine-tuned model ships in, and the tagger that runs it."""
