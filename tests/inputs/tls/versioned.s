# errno under its private version, through a slot.
    .text
    .globl address
    .type address, @function
address:
    movq %fs:0, %rax
    .symver private, errno@GLIBC_PRIVATE
    addq private@gottpoff(%rip), %rax
    ret
