# One refused use of thread-local relocations; CASE chooses it.
    .text
    .globl function
function:
.if CASE == 1
    .weak nowhere
    movl %fs:nowhere@tpoff, %eax
.elseif CASE == 2
    movl %fs:environ@tpoff, %eax
.elseif CASE == 3
    movl local_variable(%rip), %eax
.elseif CASE == 4
    leaq environ@dtpoff(%rax), %rax
.endif
    ret
    .data
    .long 7
    .section .tdata, "awT", @progbits
.if CASE == 7
    .p2align 22
.endif
    .long 0
local_variable: .long 5
.if CASE == 5
    .quad local_variable@tpoff
.elseif CASE == 6
    .long function - .
.endif
