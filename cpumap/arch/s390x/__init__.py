"""What s390x CPUs are to cpumap. What asks QEMU or libvirt is elsewhere."""
