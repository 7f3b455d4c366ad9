"""Networks that turn a window of bars into embeddings, and the autoencoders that pretrain them."""
