"""What event-nexus costs, beside its peers and beside the least it could cost. See README.md."""
