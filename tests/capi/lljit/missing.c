/* What it needs is nowhere. */
extern int nowhere(void);
int needs(void) { return nowhere(); }
