# Thread-local offsets in data, code that no sequence matches, and a common variable.
    .text
    .globl by_word, by_pair, odd_load, common
    .type by_word, @function
by_word:
    movq %fs:0, %rax
    addq offset(%rip), %rax
    ret
    .type by_pair, @function
by_pair:
    subq $8, %rsp
    leaq pair(%rip), %rdi
    call __tls_get_addr@plt
    addq $8, %rsp
    ret
    # A load that has no local-exec form of this length keeps its slot.
    .type odd_load, @function
odd_load:
    movq %fs:0, %rax
    movq variable@gottpoff(%rip), %rcx
    xorl %edx, %edx
    orq variable@gottpoff(%rip), %rdx
    cmpq %rcx, %rdx
    jne 1f
    addq %rdx, %rax
    ret
1:  xorl %eax, %eax
    ret
    .type common, @function
common:
    movq %fs:0, %rax
    leaq shared@tpoff(%rax), %rax
    ret
    .data
offset: .quad variable@tpoff
pair:   .quad 0
    .reloc pair, R_X86_64_DTPMOD64, variable
        .quad variable@dtpoff
    .section .tdata, "awT", @progbits
    .globl variable
    .type variable, @object
    .size variable, 8
    .quad 0
variable: .quad message
    .tls_common shared, 24, 8
    .data
message: .asciz "an address in an initial value"
