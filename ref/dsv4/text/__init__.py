"""From ids to text and back: the tokenizer, the chat format, sampling, and generation."""
