; The probe guest: a firmware (-bios) that writes the CPU it runs on to the debug console, and leaves.
;
; Ports: 0xE9 isa-debugcon (the records), 0x501 isa-debug-exit (status EXIT_STATUS), 0x510 fw_cfg (how many vCPUs).
; Output: records of six little-endian dwords
;     leaf, subleaf, eax, ebx, ecx, edx      one CPUID; left out when the subleaf is not 0 and the registers are
;     number, MSR, low, MSR, number, high    one MSR
;     number, MSR_FAULT, …                   one MSR whose reading faults
;     ticket, VCPU, 0, 0, 0, 0               what follows, up to the next such record, was seen by another vCPU
; The other vCPUs come first, then the boot processor: its MSRs, then its CPUID.
;
; Everything is 32-bit code. Where the CPU has long mode it is switched on and the code goes on in compatibility
; mode: some of what CPUID says (SYSCALL on Intel) holds in long mode only.

cpu x64

IMAGE_SIZE   equ 960                    ; the image ends where the first megabyte ends
EXIT_STATUS  equ 0x2A

MSR          equ -1                     ; in a record's second dword
MSR_FAULT    equ -2
VCPU         equ -3
RECORD       equ 24

; Memory (zero at reset). Below 0x68: the interrupt gates.
TICKETS      equ 0x400                  ; how many vCPUs have come by
FINISHED     equ 0x404                  ; how many of the others are done
STACK        equ 0x1000                 ; the boot processor's, growing down
PML4         equ 0x1000
PDPT         equ 0x2000
PAGES        equ 0x3000
TRAMPOLINE   equ 0x8000                 ; where the other vCPUs start (SIPI vector 8)
RECORDS      equ 0x10000                ; the boot processor's
SLOTS        equ 0x100000               ; a page for each other vCPU: its records, their end, its stack
SLOT_END     equ 0xE00

CODE_SEGMENT equ 8
DATA_SEGMENT equ 16
APIC_ICR     equ 0xFEE00300
INIT_OTHERS  equ 0x000C4500             ; to all but self
SIPI_OTHERS  equ 0x000C4600 + (TRAMPOLINE >> 12)

org 0x100000 - IMAGE_SIZE
bits 16

%define real_mode_offset(label) (label - image + 0x10000 - IMAGE_SIZE)

image:
real_mode:                              ; every vCPU, at F000:xxxx
    cli
    o32 lgdt [cs:real_mode_offset(gdt_pointer)]
    o32 lidt [cs:real_mode_offset(idt_pointer)]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword CODE_SEGMENT:protected_mode

bits 32
protected_mode:
    mov eax, DATA_SEGMENT
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    inc eax
    lock xadd [TICKETS], eax
    test eax, eax
    jnz other_vcpu

boot_processor:
    mov esp, STACK
    mov edi, RECORDS
    call read_msrs
    call other_vcpus
    call enter_long_mode
    mov esi, ranges
.range:
    lodsd
    push esi
    mov ebp, eax
    call read_range
    pop esi
    cmp esi, ranges_end
    jb .range
    mov esi, RECORDS
    call print
    mov dx, 0x501
    mov al, EXIT_STATUS
    out dx, al
halt:
    hlt
    jmp halt

; The records from esi to edi, to the debug console.
print:
    mov ecx, edi
    sub ecx, esi
    mov dx, 0xE9
    rep outsb
    ret

; ---- MSRs: records at edi

read_msrs:
    mov dword [6 * 8], (CODE_SEGMENT << 16) | real_mode_offset(invalid_opcode)
    mov dword [6 * 8 + 4], 0x000F8E00
    mov dword [13 * 8], (CODE_SEGMENT << 16) | real_mode_offset(general_protection)
    mov dword [13 * 8 + 4], 0x000F8E00
    mov esi, msrs
.next:
    xor eax, eax
    lodsw
    xchg eax, ecx
    lodsb
    movzx ebp, al                       ; how many in a row
.one:
    or ebx, MSR
    xor eax, eax
    cdq
    rdmsr
.after:
    mov [edi], ecx
    mov [edi + 4], ebx
    call store_registers
    inc ecx
    dec ebp
    jnz .one
    cmp esi, msrs_end
    jb .next
    ret

; Left with a jump: not every KVM emulates iretd in 32-bit mode.
general_protection:
    pop ebx                             ; the error code
invalid_opcode:                         ; as on a CPU without MSRs
    add esp, 12                         ; where from, and the flags
    mov ebx, MSR_FAULT
    jmp read_msrs.after

; ---- CPUID: records at edi

; Every leaf from ebp to the highest that CPUID of ebp names.
read_range:
    mov eax, ebp
    cpuid
    sub eax, ebp
    cmp eax, 0xFFFF
    jbe .in_range
    xor eax, eax                        ; no such range: an echo of another leaf
.in_range:
    cmp eax, 0xFF
    jbe .leaf
    mov eax, 0xFF
.leaf:
    push eax
    call read_leaf
    pop eax
    inc ebp
    dec eax
    jns .leaf
    ret

; Every subleaf of leaf ebp.
read_leaf:
    mov esi, rules
.find:
    cmp esi, rules_end
    je .found
    cmp [esi], ebp
    je .found
    add esi, 6
    jmp .find
.found:
    lodsd
    lodsw                               ; al: rule, ah: last subleaf
    movzx esi, ax
    xor ecx, ecx
.subleaf:
    push ecx
    mov eax, ebp
    cpuid
    call store_registers
    mov [edi - RECORD], ebp
    or ebx, eax
    or ebx, ecx
    or ebx, edx
    xchg eax, edx                       ; edx: EAX
    pop eax                             ; the subleaf
    mov [edi - RECORD + 4], eax
    test eax, eax
    jz .keep
    test ebx, ebx
    jnz .keep
    sub edi, RECORD                     ; all zero
.keep:
    mov ebx, esi                        ; bl: rule, bh: last subleaf
    cmp bl, UNTIL_EAX
    je .until_eax
    cmp bl, UNTIL_LEVEL
    je .until_level
    cmp bl, EAX_IS_LAST
    jne .more
    cmp edx, 31
    jbe .last
    mov edx, 31
.last:
    shl edx, 8                          ; the rule from now on: UPTO
    mov esi, edx
    jmp .more
.until_level:
    mov dl, ch
.until_eax:
    test dl, 0x1F
    jz .done
.more:
    mov edx, esi
    lea ecx, [eax + 1]
    cmp cl, dh
    jbe .subleaf
.done:
    ret

store_registers:
    mov [edi + 8], eax
    mov [edi + 12], ebx
    mov [edi + 16], ecx
    mov [edi + 20], edx
    add edi, RECORD
    ret

; ---- the other vCPUs

; Wakes them, waits for them, prints their records.
other_vcpus:
    mov dx, 0x510
    mov eax, 5                          ; FW_CFG_NB_CPUS
    out dx, ax
    inc edx
    in al, dx
    mov cl, al
    in al, dx
    mov ch, al
    movzx ebp, cx
    dec ebp
    jz .none
    push edi
    mov dword [TRAMPOLINE], 0xEA | (real_mode_offset(real_mode) << 8)
    mov word [TRAMPOLINE + 3], 0xF000
    mov dword [APIC_ICR], INIT_OTHERS
    mov dword [APIC_ICR], SIPI_OTHERS
.wait:
    pause
    cmp [FINISHED], ebp
    jne .wait
    mov ebx, SLOTS
.print:
    mov esi, ebx
    mov edi, [ebx + SLOT_END]
    call print
    add ebx, 0x1000
    dec ebp
    jnz .print
    pop edi
.none:
    ret

other_vcpu:                             ; eax: ticket
    mov edi, eax
    shl edi, 12
    add edi, SLOTS
    mov esp, edi                        ; the end of its slot
    sub edi, 0x1000
    push edi
    mov [edi], eax
    mov dword [edi + 4], VCPU
    add edi, RECORD
    mov esi, topology
.leaf:
    lodsd
    mov ebp, eax
    and eax, 0x80000000
    cpuid
    cmp eax, ebp
    jb .absent
    push esi
    call read_leaf
    pop esi
.absent:
    cmp esi, topology_end
    jb .leaf
    pop eax
    mov [eax + SLOT_END], edi
    lock inc dword [FINISHED]
    jmp halt

; ---- long mode, where there is one (and the PAE that it stands on)

enter_long_mode:
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb .absent
    cmp eax, 0x8000FFFF
    ja .absent
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc .absent
    mov eax, 1
    cpuid
    bt edx, 6
    jnc .absent
    mov dword [PML4], PDPT + 3
    mov dword [PDPT], PAGES + 3
    mov dword [PAGES], 0x83             ; the first two megabytes, as they are
    mov eax, PML4
    mov cr3, eax
    mov eax, cr4
    or al, 1 << 5                       ; PAE
    mov cr4, eax
    mov ecx, 0xC0000080                 ; EFER
    rdmsr
    or ah, 1                            ; LME
    wrmsr
    mov eax, cr0
    or eax, 1 << 31                     ; paging: long mode is active
    mov cr0, eax
.absent:
    ret

; ---- facts

; The accessed bits are set: KVM does not let the processor set them in ROM.
gdt:
    dq 0
    dq 0x00CF9B000000FFFF               ; code, 32-bit, flat
    dq 0x00CF93000000FFFF               ; data, flat
gdt_pointer:
    dw gdt_pointer - gdt - 1
    dd gdt
idt_pointer:
    dw 14 * 8 - 1
    dd 0

ranges:
    dd 0, 0x40000000, 0x40000100, 0x80000000, 0xC0000000
ranges_end:

; What another vCPU may answer differently.
topology:
    dd 1, 4, 0xB, 0x1F, 0x8000001D, 0x8000001E, 0x80000026
topology_end:

msrs:                                   ; first number, how many
    %macro msr 2
    dw %1
    db %2
    %endmacro
    msr 0x8B, 1                         ; IA32_BIOS_SIGN_ID
    msr 0xCE, 2                         ; MSR_PLATFORM_INFO, IA32_CORE_CAPABILITIES
    msr 0x10A, 1                        ; IA32_ARCH_CAPABILITIES
    msr 0x345, 1                        ; IA32_PERF_CAPABILITIES
    msr 0x480, 18                       ; IA32_VMX_BASIC to IA32_VMX_VMFUNC
msrs_end:

; Which subleaves a leaf has, and the last one to be read at most. Other leaves have subleaf 0.
UPTO         equ 0                      ; all of them
EAX_IS_LAST  equ 1                      ; EAX of subleaf 0 is the last one
UNTIL_EAX    equ 2                      ; until EAX bits 4:0 (the type) are 0
UNTIL_LEVEL  equ 3                      ; until ECX bits 12:8 (the level's type) are 0
    %macro rule 3
    dd %1
    db %2, %3
    %endmacro
rules:
    rule 4, UNTIL_EAX, 31
    rule 7, EAX_IS_LAST, 0
    rule 0xB, UNTIL_LEVEL, 5
    rule 0xD, UPTO, 63
    rule 0xF, UPTO, 1
    rule 0x10, UPTO, 5
    rule 0x12, UPTO, 4
    rule 0x14, EAX_IS_LAST, 0
    rule 0x17, EAX_IS_LAST, 0
    rule 0x18, EAX_IS_LAST, 0
    rule 0x1B, UNTIL_EAX, 31
    rule 0x1D, EAX_IS_LAST, 0
    rule 0x1E, UPTO, 1
    rule 0x1F, UNTIL_LEVEL, 5           ; QEMU 10 and newer abort at 6 under tcg
    rule 0x20, EAX_IS_LAST, 0
    rule 0x23, UPTO, 5
    rule 0x24, EAX_IS_LAST, 0
    rule 0x29, EAX_IS_LAST, 0
    rule 0x8000001D, UNTIL_EAX, 31
    rule 0x80000020, UPTO, 3
    rule 0x80000026, UNTIL_LEVEL, 5
rules_end:
    rule 0, UPTO, 0

    times IMAGE_SIZE - 16 - ($ - image) db 0

bits 16
reset:
    jmp 0xF000:real_mode_offset(real_mode)
    times 16 - ($ - reset) db 0
