long exported_word = 41;
long exported_function(long value) { return value + exported_word; }
