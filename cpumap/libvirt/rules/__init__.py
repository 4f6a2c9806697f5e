"""What libvirt decides about CPUs, from a CPU map alone: compare, baseline, update, decode. QEMU's
verdicts are in `runnable`.
"""
