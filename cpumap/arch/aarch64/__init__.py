"""What aarch64 CPUs are to cpumap. What asks QEMU or libvirt is elsewhere."""
