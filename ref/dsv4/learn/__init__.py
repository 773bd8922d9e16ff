"""What training needs beyond the forward pass."""
