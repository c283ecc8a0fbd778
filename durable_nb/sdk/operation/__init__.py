"""One module per durable operation, each with the same parts: what is asked, what is recorded, what is done."""
