"""A hundred thousand identities that nobody has, and the answers of a console about them."""

import collections
import datetime
import functools
import random

HOSTILE = "<img src=x onerror=alert(1)>"
AUTHORITIES = ("authorities/entra", "authorities/oidc", "authorities/partner")
STATES = ("active",) * 94 + ("disabled",) * 3 + ("provisioning",) * 2 + ("failed",)
TEAMS = ("payments", "orders", "search", "ledger", "billing", "shipping", "risk", "identity", "reports", "media")
REASONS = (
    "AADSTS700027: the certificate with this thumbprint is not registered",
    "the authority answers 503 since 4 tries",
    f"invalid_client: {HOSTILE}",
)


def text(moment):
    return moment.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


class World:
    """Everything that there is, made from a seed: the same each time but for the clock."""

    def __init__(self, identities=100_000, seed=7):
        self.random, self.began = random.Random(seed), datetime.datetime.now(datetime.timezone.utc)
        self.rows = [self._identity(n) for n in range(identities)]
        self.by_name = {row["name"]: row for row in self.rows}

    def later(self, seconds):
        return text(self.began + datetime.timedelta(seconds=seconds))

    def _identity(self, n):
        draw, team = self.random, self.random.choice(TEAMS)
        state = draw.choice(STATES)
        starving = state == "active" and n % 20_011 == 7
        used = draw.random() < 0.8 and state == "active"
        return {
            "name": f"identities/{team}.service-{n:06}",
            "display_name": HOSTILE if n % 9973 == 7 else f"{team.title()} service {n}",
            "kind": draw.choice(("created", "created", "attached")),
            "state": state,
            "authority": draw.choice(AUTHORITIES),
            "workload": f"workloads/{team}-{n % 300}" if n % 5 == 0 else None,
            "client_id": "%032x" % draw.getrandbits(128),
            "starves_in_seconds": draw.uniform(40, 900) if starving else None,
            "last_error": draw.choice(REASONS) if starving or state == "failed" else None,
            "credential_create_time": self.later(-draw.uniform(0, 45 * 86400)),
            "credential_expire_time": self.later(draw.uniform(45, 90) * 86400),
            "next_refresh_time": self.later(draw.uniform(5, 2400)) if used else None,
            "last_use_time": self.later(-draw.expovariate(1 / 3000)) if used else None,
            "consumers": draw.randrange(0, 9),
            "tokens": draw.randrange(1, 4) if used else 0,
        }

    def chosen(self, q="", state="", authority="", sort="worst", descending=""):
        """The list that is asked for, all of it."""
        wanted = q.lower()

        def matches(row):
            told = (row["name"], row["display_name"], row["client_id"])
            return (not wanted or any(wanted in part.lower() for part in told)) and state in ("", row["state"]) and authority in ("", row["authority"])

        rows = sorted(filter(matches, self.rows), key=ORDERS[sort])
        return rows[::-1] if descending == "true" else rows

    def counted(self, member):
        return collections.Counter(row[member] for row in self.rows)

    def starving(self):
        starving = (row for row in self.rows if row["starves_in_seconds"] is not None)
        return sorted(starving, key=lambda row: row["starves_in_seconds"])

    def page(self, page_size="100", page_token="", **query):
        rows, size, first = self.chosen(**query), int(page_size), int(page_token or 0)
        return {
            "identities": rows[first : first + size],
            "total": len(rows),
            "next_page_token": str(first + size) if first + size < len(rows) else None,
            "previous_page_token": str(max(0, first - size)) if first else None,
        }

    def detail(self, row):
        stages = ("registered", "verified", "switched", "refreshed", "rotated", "refresh_failed")
        rotating = row["state"] in ("provisioning", "failed")
        operation = {"kind": "provision", "step": "verified", "start_time": self.later(-90), "attempts": 3, "next_try_time": self.later(12)}
        credential = {"kind": "certificate", "algorithm": "rsa2048", "create_time": row["credential_create_time"]}
        target = {"target": "resource:https://vault.example .default", "state": "stale" if row["starves_in_seconds"] else "fresh"}
        member = {"name": "role-assignments/1", "member": "spiffe://example/" + "very-long-path/" * 6, "role": "token-user"}
        return row | {
            "create_time": self.later(-3e6),
            "update_time": self.later(-400),
            "labels": {"team": "payments", "hostile": HOSTILE},
            "operation": operation | {"last_error": row["last_error"]} if rotating else None,
            "credentials": [credential | {"state": "current", "expire_time": row["credential_expire_time"], "thumbprint": "kX3x" * 10}],
            "tokens_in_memory": [
                target | {"expires_at": self.later(900), "refresh_at": self.later(300), "last_used": self.later(-3), "pinned": True, "last_error": row["last_error"]}
            ],
            "role_assignments": [member | {"scope": row["name"], "targets": ["https://vault.example/.default"], "expire_time": None}],
            "timeline": [self.event(n, row["name"], kind) for n, kind in enumerate(stages)],
        }

    def event(self, n, identity, kind):
        bad = kind.endswith("failed")
        message = self.random.choice(REASONS) if bad else f"{kind} at the authority"
        return {
            "id": n,
            "time": self.later(-n * 400),
            "kind": kind,
            "severity": "error" if bad else "info",
            "identity": identity,
            "authority": AUTHORITIES[0],
            "message": message,
            "correlation_id": f"c-{n}" if bad else None,
        }


class Still(World):
    """One in which nothing changes, so that its lists are made once."""

    chosen = functools.cache(World.chosen)
    counted = functools.cache(World.counted)
    starving = functools.cache(World.starving)


def worst(row):
    left = row["starves_in_seconds"]
    return (left is None, left or 0, row["last_error"] is None, row["state"] == "active", row["name"])


def absent_last(member):
    return lambda row: (row[member] is None, row[member] or "", row["name"])


ORDERS = {
    "worst": worst,
    "name": lambda row: row["name"],
    "credential": absent_last("credential_create_time"),
    "next_refresh": absent_last("next_refresh_time"),
    "last_use": absent_last("last_use_time"),
}
