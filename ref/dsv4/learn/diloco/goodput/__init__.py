"""How much of a cluster's time is training while its chips fail: event queue, published points, fitted times."""
