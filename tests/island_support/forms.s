# loads that a register of the instruction can carry
mov far(%rip), {q}
mov far+8(%rip), {l}
movzbl far(%rip), {l}
movzwl far(%rip), {l}
movzbq far(%rip), {q}
movsbl far(%rip), {l}
movsbq far(%rip), {q}
movswq far(%rip), {q}
movslq far(%rip), {q}
popcnt far(%rip), {q}
tzcnt far(%rip), {l}
imul $77, far(%rip), {q}
imul $0x12345678, far(%rip), {l}
cvttsd2si far(%rip), {q}
cvttss2si far(%rip), {l}
movbe far(%rip), {q}
# loads that keep a part of the register, or may keep all
mov far(%rip), {w}
mov far(%rip), {b}
movzbw far(%rip), {w}
cmove far(%rip), {q}
cmovbe far(%rip), {l}
bsf far(%rip), {q}
# stores
mov {q}, far(%rip)
mov {l}, far(%rip)
mov {w}, far(%rip)
mov {b}, far(%rip)
mov %ah, far(%rip)
mov %bh, far(%rcx,%rsi,2)
mov far(%rdi), %dh
add %ch, far(%rax,%rdx)
xadd %ah, far(%rcx,%rdx,4)
movb $5, far(%rip)
movw $0x1234, far(%rip)
movl $0x12345678, far+4(%rip)
movq $-2, far(%rip)
movl $near, far(%rip)
movq $near, far(%rip)
sete far(%rip)
setl far({x})
# addresses
mov $far, {l}
movq $far, {q}
lea far(%rip), {q}
lea far+12(%rip), {l}
lea far({x}), {q}
lea far(,{x},8), {q}
lea far({x},{y},4), {q}
lea far(%rsp), {q}
lea far(%rsp,{x},2), {q}
# 32S displacements with base and index
movzbl far({q}), {l}
mov far(,{q},8), {q}
mov far({x}), {q}
mov far({x},{y},8), {q}
mov far({x},{y},4), {l}
mov far({q},{x}), {w}
movzbl far({x},{q}), {l}
mov {q}, far(,{x},8)
mov {q}, far({x},{y})
mov {b}, far({x})
movb $0, far({x})
movl $7, far(,{x},4)
testb $4, far({x})
testb $16, far+1({x},{y},2)
cmpb $0, far({x})
add {l}, far(,{x},4)
mov far(%rsp), {q}
mov {q}, far(%rsp)
mov far(%rsp,{x},8), {q}
add far(%rsp,{x},2), {q}
mov far, {q}
mov {l}, far
incl far(%rip)
# arithmetic on memory
add {q}, far(%rip)
add far(%rip), {q}
addl $1, far(%rip)
addq $0x1000, far(%rip)
adc {l}, far(%rip)
adc far(%rip), {q}
sbb {q}, far(%rip)
sbb far(%rip), {l}
sub far(%rip), {q}
subl $1, far(%rip)
and far(%rip), {l}
andl $-16, far(%rip)
or {w}, far(%rip)
orb $1, far(%rip)
xor far(%rip), {q}
cmp {q}, far(%rip)
cmp far(%rip), {q}
cmp {b}, far(%rip)
cmpl $0, far(%rip)
cmpw $3, far(%rip)
cmpb $0, far(%rip)
cmpq $0x12345678, far(%rip)
test {q}, far(%rip)
testl $0x10000, far(%rip)
testb $1, far(%rip)
incq far(%rip)
decl far(%rip)
negq far(%rip)
notb far(%rip)
shll far(%rip)
shlq $3, far(%rip)
sarl %cl, far(%rip)
rorw %cl, far({x})
rclq far(%rip)
shld $4, {q}, far(%rip)
shrd %cl, {l}, far(%rip)
imul far(%rip), {q}
imulq far(%rip)
mull far(%rip)
divl far(%rip)
divb far(%rip)
idivq far(%rip)
bt {q}, far(%rip)
btsq $5, far(%rip)
btr {l}, far({x})
# atomics
lock addl $1, far(%rip)
lock incq far(%rip)
lock or {q}, far(%rip)
lock xadd {q}, far(%rip)
lock xadd {l}, far({x})
lock cmpxchg {q}, far(%rip)
lock cmpxchg {b}, far(,{x},2)
lock cmpxchg8b far(%rip)
lock cmpxchg16b far(%rip)
lock bts {q}, far(%rip)
lock btcl $3, far(%rip)
xchg {q}, far(%rip)
xchg {b}, far({x})
# far immediates
cmp $far, {q}
add $far, {q}
sub $far, {q}
and $far, {q}
or $far, {q}
xor $far, {q}
adc $far, {q}
sbb $far, {q}
test $far, {q}
imul $far, {x}, {q}
imul $far, near(%rip), {q}
cmp $far, %rsp
test $far, %rsp
movq $far, %rsp
cmpq $far, near(%rip)
cmpq $far, ({q})
cmpq $far, 16({q},{x},8)
movq $far, near(%rip)
movq $far, ({q})
movq $far, 8(%rsp)
movq $far, -16(%rsp)
movq $far, 0x120(%rsp)
movq $far, 8(%rsp,{x})
movq $far, 24({q})
movq $far, near(,{x},8)
addq $far, near(%rip)
subq $far, 40({q},{x})
lock addq $far, near(%rip)
testq $far, 8({q})
push $far
pushq $far+4
# two far fields
movq $far, far(%rip)
cmpq $far, far(%rip)
cmpq $far, far({x})
addq $far, far({x},{y},2)
movq $far, far(,{x},8)
movq $far, far(%rsp)
lock subq $far, far(%rip)
imul $far, far(%rip), {q}
imul $far, far({q}), {q}
# the stack
push far(%rip)
push far(,{x},8)
push far({x},{y},2)
push far(%rsp)
push far(%rsp,{x},4)
pop far(%rip)
pop far(,{x},8)
pop far({x},{y})
pop far(%rsp)
pop far(%rsp,{x},2)
mov %rsp, far(%rip)
mov %esp, far({x})
mov %sp, far(%rip)
mov %spl, far(%rip)
cmp far(%rip), %rsp
cmp %rsp, far(%rip)
test %rsp, far(%rip)
add %rsp, far({x})
# calls and jumps through memory
call *far(%rip)
call *far(,{x},8)
call *far({x})
call *far({x},{y},8)
call *far(%rsp)
call *far(%rsp,{x},8)
jmp *far(%rip)
jmp *far(,{x},8)
jmp *far({x},{y},4)
jmp *far(%rsp,{x})
notrack jmp *far(,{x},8)
# SSE
movss far(%rip), %xmm3
movsd far(%rip), %xmm12
movsd %xmm1, far(%rip)
movaps far(%rip), %xmm0
movups far(%rip), %xmm9
movups %xmm2, far({x})
movdqa %xmm8, far(%rip)
movdqu far(,{x},8), %xmm1
movq far(%rip), %xmm1
movd %xmm4, far(%rip)
movlps %xmm1, far(%rip)
movhps far(%rip), %xmm1
addsd far(%rip), %xmm2
mulss far(,{x},4), %xmm2
xorps far(%rip), %xmm5
pand far(%rip), %xmm6
ucomisd far(%rip), %xmm7
comiss far(%rip), %xmm11
cvtsi2sdl far(%rip), %xmm1
cvtsi2sdq far(%rip), %xmm1
cvtsi2ssl far(,{x},4), %xmm9
cvtss2sd far(%rip), %xmm2
cvtps2pd far(%rip), %xmm2
sqrtsd far(%rip), %xmm2
pshufd $0x1b, far(%rip), %xmm3
shufps $0x44, far(%rip), %xmm3
pinsrw $3, far(%rip), %xmm3
pinsrq $1, far(%rip), %xmm3
pextrb $2, %xmm3, far(%rip)
cmpltsd far(%rip), %xmm3
pcmpistri $0xc, far(%rip), %xmm3
roundsd $1, far(%rip), %xmm3
prefetcht0 far(%rip)
prefetchw far({x})
nopw far(%rax,%rax,1)
crc32q far(%rip), {q}
# x87
flds far(%rip)
fldl far(%rip)
fldt far({x})
fstps far(%rip)
fstpl far(%rip)
fstpt far(%rip)
fildl far(%rip)
fistpll far(%rip)
fisttpl far(%rip)
faddl far(%rip)
fmuls far(,{x},4)
fnstcw far(%rip)
fnstsw far(%rip)
# AVX and AVX-512
vmovsd far(%rip), %xmm13
vmovups far(%rip), %ymm1
vmovdqa %ymm9, far(%rip)
vaddsd far(%rip), %xmm1, %xmm2
vfmadd213sd far(%rip), %xmm1, %xmm2
vcvtsi2sdl far(%rip), %xmm1, %xmm2
vbroadcastss far(,{x},4), %ymm3
vpinsrd $1, far(%rip), %xmm1, %xmm2
vinserti128 $1, far(%rip), %ymm1, %ymm2
vpshufb far({x},{y},8), %ymm1, %ymm2
vblendvpd %ymm3, far(%rip), %ymm1, %ymm2
vmovups far(%rip), %zmm17
vmovdqu64 %zmm1, far({x})
vaddpd far(%rip){1to8}, %zmm1, %zmm2
vmovupd far(%rip), %zmm3{%k1}{z}
vpaddd far(,{x},8), %zmm1, %zmm21{%k2}
vpternlogd $0x96, far(%rip), %zmm1, %zmm2
kmovq far(%rip), %k3
# BMI
andn far(%rip), {x}, {q}
bextr {x}, far(%rip), {q}
bzhi {x}, far({y}), {q}
mulx far(%rip), {x}, {q}
pdep far(%rip), {x}, {q}
rorx $7, far(%rip), {q}
shlx {x}, far({x}), {q}
blsr far(%rip), {q}
