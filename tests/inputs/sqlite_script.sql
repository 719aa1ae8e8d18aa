-- What a program asks of SQLite, in one script; the driver prints every row.
PRAGMA journal_mode = WAL;
CREATE TABLE city(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, country TEXT, people INTEGER);
CREATE TABLE road(a INTEGER REFERENCES city, b INTEGER REFERENCES city, km REAL CHECK (km > 0));
CREATE INDEX road_a ON road(a, km DESC);
INSERT INTO city(name, country, people) VALUES
  ('Lisbon', 'PT', 545000), ('Porto', 'PT', 232000), ('Madrid', 'ES', 3223000),
  ('Sevilla', 'ES', 684000), ('Zürich', 'CH', 415000), ('東京', 'JP', 13960000);
INSERT INTO road VALUES (1, 2, 313.5), (1, 3, 624.0), (3, 4, 531.25), (2, 3, 562.125), (1, 4, 460.0);

-- joins, grouping, ordering, collation
SELECT x.name, y.name, km FROM road JOIN city x ON a = x.id JOIN city y ON b = y.id ORDER BY km;
SELECT country, count(*), sum(people), avg(people) FROM city GROUP BY country HAVING count(*) > 1 ORDER BY 1;
SELECT name FROM city ORDER BY name COLLATE NOCASE DESC;
SELECT c.name, r.km FROM city c LEFT JOIN road r ON r.a = c.id AND r.km > 500 ORDER BY c.id, r.km;
EXPLAIN QUERY PLAN SELECT * FROM road WHERE a = 1 ORDER BY km DESC;

-- recursive common table expressions
WITH RECURSIVE path(id, km, trail) AS (
  SELECT 1, 0.0, 'Lisbon'
  UNION ALL
  SELECT b, path.km + road.km, trail || '>' || name FROM path JOIN road ON a = path.id JOIN city ON city.id = b
) SELECT trail, km FROM path ORDER BY km, trail;
WITH RECURSIVE fib(n, a, b) AS (SELECT 1, 0, 1 UNION ALL SELECT n + 1, b, a + b FROM fib WHERE n < 90)
  SELECT max(a), sum(a % 7) FROM fib;
WITH RECURSIVE
  x(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM x WHERE i < 9),
  y(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM y WHERE i < 5)
SELECT group_concat(substr(' .+*#', 1 + (x.i * y.i) % 5, 1), '') FROM x, y GROUP BY y.i;

-- window functions
SELECT name, people, rank() OVER (ORDER BY people DESC), sum(people) OVER (PARTITION BY country ORDER BY id)
  FROM city ORDER BY id;

-- floats: parsing, printing, mathematics
SELECT 0.1 + 0.2, 1e308 * 10, -1e308 * 10, 1.0 / 3, 5e-324, 9007199254740993.0, round(2.5), round(-2.675, 2);
SELECT sqrt(2), exp(1), ln(10), sin(1), cos(1), atan2(1, 2), pow(2, 0.5), floor(-1.5), ceil(1.2), pi();
SELECT printf('%.17g|%e|%8.3f|%,d|%x|%q', 0.1, 12345.678, 3.14159, 1234567890, 255, 'it''s');
SELECT cast('12.5abc' AS REAL), cast('0x1F' AS INTEGER), typeof(1), typeof(1.0), typeof('a'), typeof(x'00'), typeof(NULL);

-- text, blobs, dates, functions of the driver's own
SELECT upper('straße'), length('東京'), hex('東京'), instr('hello', 'll'), replace('aXbX', 'X', '--'), x'00ff10';
SELECT 'abc' LIKE 'A%', 'abc' GLOB 'a*c', quote('it''s'), unicode('é'), char(72, 105), trim('  x ');
SELECT date('2024-02-29', '+1 year'), strftime('%Y-%j %H:%M', '2000-03-01 12:34:56'), julianday('2000-01-01');
SELECT reverse_text('stressed'), (SELECT product(value) FROM json_each('[1,2,3,4,5]'));

-- JSON
SELECT json_extract('{"a":[1,{"b":"c\u00e9"}],"n":null}', '$.a[1].b'), json('[1, 2 ,3]'), json_type('{"x":1.5}', '$.x');
SELECT key, value, type FROM json_each('{"one":1,"two":[2],"three":"3","four":null}');
SELECT json_group_array(name) FROM (SELECT name FROM city ORDER BY name);
SELECT json_set('{"a":1}', '$.b', json_object('k', json_array(1, 'x', 2.5))), '{"a":{"b":7}}' ->> '$.a.b';

-- full text search
CREATE VIRTUAL TABLE doc USING fts5(title, body, tokenize = 'porter unicode61');
INSERT INTO doc VALUES
  ('Linkers', 'A linker resolves symbols and relocates sections'),
  ('Loaders', 'A loader maps segments and runs constructors'),
  ('Relocation', 'Relocating code patches addresses into instructions');
SELECT title, snippet(doc, 1, '[', ']', '...', 5) FROM doc WHERE doc MATCH 'reloc*' ORDER BY title;
SELECT title, round(bm25(doc), 6) FROM doc WHERE doc MATCH 'section OR instruction' ORDER BY rank;

-- an R-tree
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1);
INSERT INTO box VALUES (1, 0, 1, 0, 1), (2, 5, 6, 5, 6), (3, 0.5, 5.5, 0.5, 5.5);
SELECT id FROM box WHERE x1 >= 0.75 AND x0 <= 2 AND y1 >= 0.75 AND y0 <= 2 ORDER BY id;

-- triggers, views, upserts, generated columns
CREATE TABLE log(what TEXT);
CREATE TRIGGER grown AFTER UPDATE OF people ON city WHEN new.people > old.people
BEGIN INSERT INTO log VALUES (old.name || ' +' || (new.people - old.people)); END;
UPDATE city SET people = people + 1000 WHERE country = 'PT';
INSERT INTO city(name, people) VALUES ('Porto', 1) ON CONFLICT(name) DO UPDATE SET people = people + excluded.people
  RETURNING name, people;
CREATE VIEW big AS SELECT name FROM city WHERE people > 500000;
SELECT * FROM log; SELECT * FROM big ORDER BY 1;
CREATE TABLE rect(w INT, h INT, area INT GENERATED ALWAYS AS (w * h) STORED);
INSERT INTO rect(w, h) VALUES (3, 4), (5, 6); SELECT * FROM rect;

-- transactions and savepoints
BEGIN; DELETE FROM city; SELECT count(*) FROM city; ROLLBACK; SELECT count(*) FROM city;
BEGIN; SAVEPOINT s; DELETE FROM road WHERE a = 1; ROLLBACK TO s; RELEASE s; COMMIT; SELECT count(*) FROM road;

-- bulk: sorting and indexing a table larger than a page cache's smallest size
CREATE TABLE big_table(k INTEGER PRIMARY KEY, v TEXT, f REAL);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO big_table SELECT i, printf('%08x', (i * 2654435761) & 4294967295), i * 0.001 FROM n;
CREATE INDEX big_v ON big_table(v);
SELECT k, v FROM big_table ORDER BY v LIMIT 5;
SELECT count(*), sum(k), round(sum(f), 6), min(v), max(v) FROM big_table WHERE v BETWEEN '40000000' AND '80000000';
ANALYZE; VACUUM; PRAGMA integrity_check; PRAGMA page_count;

-- errors that a program meets
SELECT * FROM nowhere;
INSERT INTO city(id, name) VALUES (1, 'again');
INSERT INTO road VALUES (1, 2, -5);
SELECT abs(-9223372036854775808);
SELECT broken syntax here from;
SELECT 'done', changes(), total_changes() > 0;
