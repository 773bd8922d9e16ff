"""What a model learns from: documents of token ids, their batches, a tokenizer, and texts made for the purpose."""
