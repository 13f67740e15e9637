"""The server: requests in, images out, one batch for all."""
