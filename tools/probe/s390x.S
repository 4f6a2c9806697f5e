# A guest that stores what an s390x CPU says of itself, and stops. QEMU reads its memory afterwards:
# cpumap/proof/guest_s390x.py knows what lies where. Assembled by tools/build-probe.
#
# RESULT + 0x000  STFLE, 32 doublewords        + 0x100  STIDP        + 0x108  STFL
#        + 0x200  the query functions, 16 bytes each, in the order below
#        + 0x300  PTFF query                   + 0x3f8  DONE, once all is stored
#        + 0x1000, 0x2000, 0x3000, 0x4000  STSI 1.1.1, 1.2.1, 1.2.2, 2.2.2
        .equ    RESULT, 0x20000
        .equ    DONE, 0x7e

        .text
        .globl  _start
_start:
        larl    %r1, next_psw           # an instruction that is not there is passed over
        mvc     0x1d0(16), 0(%r1)
        llilh   %r12, RESULT >> 16

        lghi    %r0, 31
        .insn   s, 0xb2b00000, 0(%r12)  # STFLE
        stidp   0x100(%r12)
        .insn   s, 0xb2b10000, 0        # STFL stores at 200
        mvc     0x108(4, %r12), 200(%r0)

# QUERY: function code 0 of a crypto instruction stores its 16 bytes where r1 points.
        .macro  query opcode, at
        lghi    %r0, 0
        la      %r1, \at(%r12)
        .insn   rre, \opcode, %r2, %r4
        brc     1, . - 4
        .endm

        lghi    %r3, 0                  # no data for any of them
        lghi    %r5, 0
        lay     %r2, 0x8000(%r12)
        lay     %r4, 0x8000(%r12)
        query   0xb92e0000, 0x200       # KM
        query   0xb92f0000, 0x210       # KMC
        query   0xb93e0000, 0x220       # KIMD
        query   0xb93f0000, 0x230       # KLMD
        query   0xb91e0000, 0x240       # KMAC
        query   0xb93c0000, 0x250       # PRNO
        query   0xb92d0000, 0x260       # KMCTR
        query   0xb92a0000, 0x270       # KMF
        query   0xb92b0000, 0x280       # KMO
        query   0xb92c0000, 0x290       # PCC
        query   0xb9280000, 0x2a0       # PCKMO
        query   0xb9290000, 0x2b0       # KMA
        query   0xb93a0000, 0x2c0       # KDSA

        lghi    %r0, 0
        la      %r1, 0x300(%r12)
        .insn   e, 0x0104               # PTFF

        .macro  sysinfo function, selector1, selector2, at
        llilh   %r0, \function << 12
        oill    %r0, \selector1
        lghi    %r1, \selector2
        lay     %r2, \at(%r12)
        stsi    0(%r2)
        .endm

        sysinfo 1, 1, 1, 0x1000
        sysinfo 1, 2, 1, 0x2000
        sysinfo 1, 2, 2, 0x3000
        sysinfo 2, 2, 2, 0x4000

        lghi    %r0, DONE
        stg     %r0, 0x3f8(%r12)
        larl    %r1, wait_psw
        lpswe   0(%r1)

passed_over:
        lpswe   0x150                   # the old PSW is behind the instruction

        .balign 8
next_psw:
        .quad   0x0000000180000000, passed_over
wait_psw:
        .quad   0x0002000180000000, 0xfff
