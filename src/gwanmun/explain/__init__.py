"""Why a request goes where it goes, told from the resolved model that the proxies serve."""

from gwanmun.explain.request import Door, Explanation, Request, Served, Share, Verdict, explain

__all__ = ["Door", "Explanation", "Request", "Served", "Share", "Verdict", "explain"]
