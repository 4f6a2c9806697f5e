"""What the hooks of libvirt, vdsm and KubeVirt do, by one policy. Nothing here calls libvirt."""
