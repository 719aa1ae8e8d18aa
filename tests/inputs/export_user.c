/* A shared library that finds the module's symbols through the dynamic linker. */
extern long exported_word, exported_function(long);
long *pointer = &exported_word;
long use(long value) { return exported_function(value) + *pointer; }
