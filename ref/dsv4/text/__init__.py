"""From ids to text and back: the tokenizer, the chat format, how tokens are drawn, and generation."""
