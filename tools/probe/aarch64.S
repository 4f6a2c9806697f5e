// A guest that writes what an AArch64 CPU says of itself to virt's serial port, one register a line:
// `NUMBER VALUE`, both hexadecimal, and `-` for a value that cannot be read. Then it switches the
// machine off. cpumap/proof/guest_aarch64.py has the names. Assembled by tools/build-probe.

        .arch   armv8-a+sve
        .equ    SERIAL, 0x09000000
        .equ    SYSTEM_OFF, 0x84000008

        .text
        .globl  _start
_start:
        adr     x0, stack_end
        mov     sp, x0
        adr     x0, vectors
        msr     vbar_el1, x0
        mov     x0, #(3 << 20) | (3 << 16)      // floating point and SVE do not trap
        msr     cpacr_el1, x0
        isb
        ldr     x20, =SERIAL

        .macro  tell number, register
        mov     x19, #0                         // set where the next instruction traps
        mrs     x0, \register
        mov     x1, #\number
        bl      line
        .endm

        // op0=3, op1=0, CRn=0: every ID register, known or reserved
        .irp    crm, 0, 1, 2, 3, 4, 5, 6, 7
        .irp    op2, 0, 1, 2, 3, 4, 5, 6, 7
        tell    (\crm << 4 | \op2), S3_0_C0_C\crm\()_\op2
        .endr
        .endr

        tell    0x101, S3_3_C0_C0_1             // CTR_EL0
        tell    0x107, S3_3_C0_C0_7             // DCZID_EL0
        tell    0x111, S3_1_C0_C0_1             // CLIDR_EL1
        tell    0x114, S3_1_C0_C0_4             // GMID_EL1
        tell    0x117, S3_1_C0_C0_7             // AIDR_EL1
        tell    0x120, cntfrq_el0
        tell    0x130, pmcr_el0
        tell    0x131, pmceid0_el0
        tell    0x132, pmceid1_el0

        // CCSIDR_EL1 of each cache
        .irp    cache, 0, 1, 2, 3, 4, 5, 6
        mov     x0, #\cache
        msr     csselr_el1, x0
        isb
        tell    (0x200 + \cache), S3_1_C0_C0_0
        .endr

        // the vector length that each ZCR_EL1.LEN gives
        mrs     x0, id_aa64pfr0_el1
        ubfx    x0, x0, #32, #4
        cbz     x0, off
        mov     x21, #0
next_length:
        mov     x19, #0
        msr     S3_0_C1_C2_0, x21               // ZCR_EL1
        isb
        rdvl    x0, #1
        add     x1, x21, #0x300
        bl      line
        add     x21, x21, #1
        cmp     x21, #16
        b.ne    next_length

off:
        ldr     w0, =SYSTEM_OFF
        hvc     #0
stop:   wfi
        b       stop

// Writes a line: x1 the number, x0 the value, x19 whether it trapped.
line:
        mov     x10, x0
        mov     x13, x30
        mov     x0, x1
        mov     x2, #12
        bl      hexadecimal
        mov     w3, #' '
        strb    w3, [x20]
        mov     x0, x10
        mov     x2, #64
        cbnz    x19, 1f
        bl      hexadecimal
        b       2f
1:      mov     w3, #'-'
        strb    w3, [x20]
2:      mov     w3, #'\n'
        strb    w3, [x20]
        ret     x13

// Writes the x2 lowest bits of x0.
hexadecimal:
        sub     x2, x2, #4
        lsr     x3, x0, x2
        and     x3, x3, #15
        add     x4, x3, #'0'
        add     x5, x3, #('a' - 10)
        cmp     x3, #10
        csel    x3, x4, x5, lo
        strb    w3, [x20]
        cbnz    x2, hexadecimal
        ret

// Every exception: go on behind the instruction.
        .balign 2048
vectors:
        .rept   16
        mrs     x25, elr_el1
        add     x25, x25, #4
        msr     elr_el1, x25
        mov     x19, #1
        eret
        .balign 128
        .endr

        .balign 16
        .skip   256
stack_end:
