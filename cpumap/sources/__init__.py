"""Where answers about CPUs come from: a running QEMU, libvirt, or recorded data. What the
answers mean for a guest is decided elsewhere.
"""
