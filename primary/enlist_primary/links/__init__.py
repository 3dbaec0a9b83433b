"""The open links, what happens to them when somebody decides, and what is seen of them."""
