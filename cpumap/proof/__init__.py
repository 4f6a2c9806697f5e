"""What a guest really sees: probe guests, differences, judgements. Nothing here predicts."""
