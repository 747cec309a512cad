"""CEL, the expression language of rules and policies, with Kubernetes' functions.

The language itself (parser, type checker, evaluator) is the reference implementation's, by its
Python binding `cel-expr-python`; it is imported when the first expression is compiled.
"""

from k8slite.api.cel.program import CompileError, EvaluationError, Program, compile_expression

__all__ = ["CompileError", "EvaluationError", "Program", "compile_expression"]
