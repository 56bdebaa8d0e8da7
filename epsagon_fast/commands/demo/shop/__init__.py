"""The demo's shop: three programs as people write them, which know nothing of tracing. The demo runs copies of them."""
