"""A namespace of a Kubernetes cluster as the place where servers run."""
