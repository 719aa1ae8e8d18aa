/* Every shape of island in frames of every shape: the frame address counted from rsp, from
 * rbp, and by an expression (a realigned stack). far_word, far_words and the far_* function
 * pointers are the host's. */
extern long far_word, far_words[];
extern long (*far_function)(long);
extern long far_called(long);

/* %rsp frames: loads, stores, immediates, pushes, pops, calls, red zone. */
__asm__(
    ".text\n.globl rsp_frame\n.type rsp_frame,@function\nrsp_frame:\n.cfi_startproc\n"
    "mov far_word(%rip),%rax\n"        /* a leaf so far: red zone, return address at rsp */
    "mov %rdi,-8(%rsp)\n"
    "add %rax,far_word(%rip)\n"
    "cmpq $far_words,-8(%rsp)\n"
    "push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbx,-16\n"
    "sub $32,%rsp\n.cfi_adjust_cfa_offset 32\n"
    "mov $far_words,%ebx\n"
    "movq $far_words,8(%rsp)\n"
    "mov far_word(%rip),%rcx\n"
    "and $1,%ecx\n"
    "mov far_words(,%rcx,8),%rdx\n"
    "mov far_words(%rcx),%r8b\n"
    "mov %rsp,far_words+16(%rip)\n"
    "cmp $far_words,%rbx\n"
    "movups far_words(%rip),%xmm0\n"
    "push far_word(%rip)\n.cfi_adjust_cfa_offset 8\n"
    "push $far_words\n.cfi_adjust_cfa_offset 8\n"
    "pop %rax\n.cfi_adjust_cfa_offset -8\n"
    "pop far_words(%rip)\n.cfi_adjust_cfa_offset -8\n"
    "call *far_function(%rip)\n"
    "mov $1,%ecx\n"
    "xor %r11d,%r11d\n"
    "call *far_function(,%r11,8)\n"
    "call far_called\n"
    "add $32,%rsp\n.cfi_adjust_cfa_offset -32\n"
    "pop %rbx\n.cfi_adjust_cfa_offset -8\n.cfi_restore %rbx\n"
    "jmp *far_function(%rip)\n"        /* a tail call */
    ".cfi_endproc\n.size rsp_frame,.-rsp_frame\n");

/* %rbp frames, as -O0 makes them. */
__asm__(
    ".globl rbp_frame\n.type rbp_frame,@function\nrbp_frame:\n.cfi_startproc\n"
    "push %rbp\n.cfi_def_cfa_offset 16\n.cfi_offset %rbp,-16\n"
    "addq $far_words,far_word(%rip)\n"
    "mov %rsp,%rbp\n.cfi_def_cfa_register %rbp\n"
    "sub $24,%rsp\n"
    "subq $far_words,far_word(%rip)\n"
    "push far_word(%rip)\n"
    "mov far_word(%rip),%rdi\n"
    "call *far_function(%rip)\n"
    "imul $far_words,%rax,%rax\n"
    "leave\n.cfi_def_cfa %rsp,8\n"
    "mov far_word(%rip),%rax\n"
    "ret\n.cfi_endproc\n.size rbp_frame,.-rbp_frame\n");

/* The frame address is an expression: the compiler saves the old rsp on a realigned stack. */
__attribute__((force_align_arg_pointer, noinline)) long realigned(long n) {
    long room[n + 1] __attribute__((aligned(64)));
    volatile long *p = room;
    for (long i = 0; i <= n; i++) p[i] = far_word + far_words[i & 1];
    far_word = far_called(p[0]) + (long)far_function;
    return p[n];
}

long rsp_frame(long), rbp_frame(long);

__attribute__((noinline)) long steps(long n) {
    far_word = n;
    long sum = rsp_frame(n);
    sum += rbp_frame(n);
    far_word = n;
    sum += realigned(n);
    return sum + far_called(sum);
}
