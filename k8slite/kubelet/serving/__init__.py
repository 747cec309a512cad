"""What a kubelet answers over HTTPS: logs, exec and its like, who may ask."""
