"""x86: CPUID, MSRs and KVM as the processor and the kernel define them. Names come from outside:
no CPU map is read here.
"""
