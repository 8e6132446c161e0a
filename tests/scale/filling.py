"""Fills an empty, migrated database as years of uploads would.

Three stores: `main` with nearly all replicas, `small` with one of 222, `hot` with copies, one of 2,000. Beside them are
what waits for gc and for repair, and one picture that many assets share.
"""

from __future__ import annotations

from contextlib import closing

import psycopg2

SHARED = "sha256('shared'::bytea)"
LOST = "sha256('lost'::bytea)"

FILL = """
INSERT INTO blob (sha256, size, media_type, created_at)
    SELECT sha256((kind || i)::bytea), size + i % 1000, type, now() - (i % 300) * interval '1 day'
    FROM generate_series(1, {half}) i,
    (VALUES ('original', 400000, 'image/jpeg'), ('variant', 20000, 'image/webp')) AS made (kind, size, type);
INSERT INTO blob (sha256, size, media_type) VALUES ({shared}, 5000, 'image/png'), ({lost}, 7000, 'image/png');
INSERT INTO replica (blob, store, generation, state, last_verified_at)
    SELECT sha256, 'main', nextval('generation_seq'), CASE WHEN sha256 = {lost} THEN 'missing' ELSE 'healthy' END,
        CASE WHEN size % 3 > 0 THEN now() - interval '2 days' - (size % 100000) * interval '1 s' END
    FROM blob;
INSERT INTO replica (blob, store, generation, state, last_verified_at, next_check_at, stands_for)
    SELECT sha256(('original' || i)::bytea), 'small', nextval('generation_seq'),
        CASE WHEN i % 20 = 1 THEN 'missing' ELSE 'healthy' END, now() - interval '1 day',
        CASE WHEN i % 20 = 1 THEN now() END, CASE WHEN i % 7 = 1 THEN 'main' END
    FROM generate_series(1, {half}, 111) i;
INSERT INTO replica (blob, store, generation, state, promoted_at)
    SELECT sha256(('original' || i)::bytea), 'hot', nextval('generation_seq'), 'healthy', now() - i * interval '1 s'
    FROM generate_series(2, {half}, {every}) i;
INSERT INTO promoted_bytes (store, bytes, unfilled)
    SELECT 'hot', sum(size), 0 FROM replica JOIN blob ON sha256 = blob WHERE promoted_at IS NOT NULL;
INSERT INTO replica (blob, store, generation, state, reserved_at)
    SELECT sha256(('original' || i)::bytea), 'small', nextval('generation_seq'), 'pending', now() - interval '2 days'
    FROM generate_series(5, {half}, {every}) i ON CONFLICT DO NOTHING;
UPDATE blob SET gc_after = now() - interval '1 day' FROM generate_series(1, {half}, {every}) i
    WHERE sha256 = sha256(('original' || i)::bytea) OR sha256 = sha256(('variant' || i)::bytea);
INSERT INTO garbage (store, key) SELECT 'main', encode(sha256(i::text::bytea), 'hex') || '.' || i
    FROM generate_series(1, {half} / 10) i;
INSERT INTO verify_event (blob, store, generation, result)
    SELECT sha256(('original' || i)::bytea), 'small', 1, 'missing' FROM generate_series(1, {half}, 11) i;
INSERT INTO asset (id, path, path_text, path_hash, entry, blob, width, height, frames, orientation, has_alpha,
                   fingerprint, upload_id, accepted_at, accepted_by_host_at)
    SELECT gen_random_uuid(), ('p' || i / 1000)::ltree, '/p' || i / 1000, sha256(('/p' || i / 1000)::bytea), i % 1000,
        sha256(('original' || i)::bytea), 4000, 3000, 1, 1, false, '', gen_random_uuid(), now() - i * interval '1 s',
        now()
    FROM generate_series(1, {half}) i;
INSERT INTO asset (id, path, path_text, path_hash, entry, blob, width, height, frames, orientation, has_alpha,
                   fingerprint, upload_id, accepted_at, accepted_by_host_at)
    SELECT gen_random_uuid(), 'none'::ltree, '/none/' || i, sha256(('/none/' || i)::bytea), 0,
        CASE WHEN i % 3 = 0 THEN {lost} ELSE {shared} END, 400, 300, 1, 1, false, '', gen_random_uuid(), now(), now()
    FROM generate_series(1, {shares}) i;
INSERT INTO path_counter (path_hash, next) SELECT path_hash, max(entry) + 1 FROM asset GROUP BY path_hash;
INSERT INTO upload (id, host_id, asset_id, path_text, state, attempts, accepted_at, recorded_at)
    SELECT upload_id, '00000000-0000-0000-0000-000000000001', id, path_text, 'recorded', 1, accepted_at, accepted_at
    FROM asset;
INSERT INTO variant (id, source, recipe_hash, recipe, blob, state, attempts, unfinished, fence)
    SELECT gen_random_uuid(), sha256(('original' || i)::bytea), 'r', '{{}}', sha256(('variant' || i)::bytea), 'ready',
        1, 0, 1 FROM generate_series(1, {half}) i;
INSERT INTO variant (id, source, recipe_hash, recipe, blob, state, attempts, unfinished, fence)
    SELECT gen_random_uuid(), {shared}, sha256(i::text::bytea), '{{}}', sha256(('variant' || i)::bytea), 'ready', 1, 0,
        1 FROM generate_series(1, 3) i;
INSERT INTO asset_variant (asset_id, variant_id, profile, eager)
    SELECT asset.id, variant.id, 'thumb', true FROM variant JOIN asset ON asset.blob = variant.source;
INSERT INTO failure (id, subject, kind, detail, failed_at)
    SELECT gen_random_uuid(), 'variant', 'undecodable', '', now() - i * interval '1 s'
    FROM generate_series(1, {half} / 100) i;
INSERT INTO job (id, kind, arguments, subject, state, cursor, progress, fence, created_at, finished_at)
    SELECT gen_random_uuid(), 'restore', '{{}}', i::text, 'done', '{{}}', '{{}}', 1, now() - i * interval '1 s',
        now() - i * interval '1 s' FROM generate_series(1, {half} / 100) i;
"""


def fill(url: str, replicas: int) -> None:
    """Without keys of other tables, triggers and indexes meanwhile, and with all of them at the end."""
    half = replicas // 2
    numbers = {"half": half, "every": 1000 if half >= 500_000 else 40, "shares": half // 3}
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; SET synchronous_commit = off; SET work_mem = '128MB'")
        cursor.execute("SET maintenance_work_mem = '256MB'")
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexdef LIKE 'CREATE INDEX%'"
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        for statement in FILL.split(";\n"):
            if statement.strip():
                cursor.execute(statement.format(shared=SHARED, lost=LOST, **numbers))
        for _, definition in indexes:
            cursor.execute(definition)
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM (ANALYZE)")
