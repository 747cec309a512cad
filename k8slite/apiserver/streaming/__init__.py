"""What the apiserver passes through to kubelets, pods and services, and never looks into."""
