import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from prm_kit.score import StepScores
from prm_kit.serve.app import create_app


class AllRight:
    name = "all right"

    def score(self, solutions):
        return [StepScores(((0.0, 0.0, 1.0),) * len(solution.spans)) for solution in solutions]


LOCAL = {"host": "localhost"}

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(AllRight()), headers=LOCAL)


@schema.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_server_keeps_what_its_openapi_document_says(case):
    # Blank steps, NUL characters and spans beyond the text are refused, which no schema can say.
    case.call_and_validate(headers=LOCAL, excluded_checks=[positive_data_acceptance])
