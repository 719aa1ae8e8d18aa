// Another object's thread-local variable.
extern thread_local int own;

extern "C" int *own_from_outside() { return &own; }
