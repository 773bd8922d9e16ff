"""How fast the network between sites must be: the DAG of training steps, the published table, and our own pair."""
