"""Recipes of mergekit's whose checkpoints are compared; `~a` stands for the folder of model a."""

END_TO_END = {
    "linear": """
        merge_method: linear
        models:
          - {model: ~a, parameters: {weight: [0.25, 1, 0.5]}}
          - {model: ~b, parameters: {weight: [{filter: mlp, value: 0}, {value: 0.3}]}}
        dtype: float32
        """,
    "slerp": """
        merge_method: slerp
        base_model: ~a
        slices:
          - sources: [{model: ~b, layer_range: [0, 3]}, {model: ~a, layer_range: [0, 3]}]
          - sources: [{model: ~a, layer_range: [2, 6]}, {model: ~b, layer_range: [1, 5]}]
        parameters: {t: [{filter: self_attn, value: [0.1, 0.9]}, {value: [0.7, 0.4]}]}
        dtype: float32
        """,
    "task_arithmetic": """
        merge_method: task_arithmetic
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: [0.5, 0.1]}}
          - {model: ~b, parameters: {weight: -0.5}}
        parameters: {lambda: 0.7}
        dtype: float32
        """,
    "passthrough": """
        merge_method: passthrough
        slices:
          - sources: [{model: ~a, layer_range: [0, 4]}]
          - sources: [{model: ~b, layer_range: [2, 5]}]
          - sources: [{model: ~a, layer_range: [3, 6], parameters: {scale: [
              {filter: o_proj, value: 0}, {filter: norm, value: 1}, {value: [1, 0.5]}]}}]
        dtype: float32
        """,
    "ties with gradients": """
        merge_method: ties
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.5, density: [1, 0.7, 0.1]}}
          - {model: ~b, parameters: {weight: [0, 0.3, 0.7, 1], density: 0.5}}
          - {model: ~base}
        parameters: {normalize: true, int8_mask: true}
        dtype: float32
        """,
    "ties by filters, with lambda": """
        merge_method: ties
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 1, density: [{filter: mlp, value: 0.3}, {value: 0.6}]}}
          - {model: ~b, parameters: {weight: -0.4, density: 0.8}}
          - {model: ~c, parameters: {weight: 0.2, density: 0.2}}
        parameters: {normalize: false, lambda: 0.7}
        dtype: float32
        """,
    "breadcrumbs": """
        merge_method: breadcrumbs
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.6, density: 0.7, gamma: 0.1}}
          - {model: ~b, parameters: {weight: 0.4}}
        parameters: {density: 0.5}
        dtype: float32
        """,
    "breadcrumbs_ties": """
        merge_method: breadcrumbs_ties
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.6}}
          - {model: ~b, parameters: {weight: 0.4}}
        parameters: {density: 0.5, gamma: 0.05}
        dtype: float32
        """,
    "model_stock of a slice": """
        merge_method: model_stock
        base_model: ~base
        slices:
          - sources:
              - {model: ~a, layer_range: [0, 6]}
              - {model: ~b, layer_range: [0, 6]}
              - {model: ~c, layer_range: [0, 6]}
              - {model: ~base, layer_range: [0, 6]}
        dtype: float32
        """,
    "model_stock by rows": """
        merge_method: model_stock
        base_model: ~base
        models: [{model: ~a}, {model: ~b}]
        parameters: {filter_wise: true}
        dtype: float32
        """,
    "karcher": """
        merge_method: karcher
        models: [{model: ~a}, {model: ~b}, {model: ~c}]
        parameters: {max_iter: 20, tol: 1e-7}
        dtype: float32
        """,
    "multislerp with a base": """
        merge_method: multislerp
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.5}}
          - {model: ~b, parameters: {weight: 0.3}}
        dtype: float32
        """,
    "nuslerp by rows": """
        merge_method: nuslerp
        models:
          - {model: ~a, parameters: {weight: 0.6}}
          - {model: ~b, parameters: {weight: [0.4, 0.9]}}
        parameters: {nuslerp_flatten: false}
        dtype: float32
        """,
    "sce": """
        merge_method: sce
        base_model: ~base
        models: [{model: ~a}, {model: ~b}, {model: ~c}]
        parameters: {select_topk: 0.4}
        dtype: float32
        """,
    "nearswap": """
        merge_method: nearswap
        base_model: ~base
        models: [{model: ~a}]
        parameters: {t: 0.05}
        dtype: float32
        """,
    "arcee_fusion": """
        merge_method: arcee_fusion
        base_model: ~base
        models: [{model: ~a}]
        dtype: float32
        """,
    "ramplus_tl": """
        merge_method: ramplus_tl
        base_model: ~base
        models: [{model: ~a}, {model: ~b}]
        parameters: {epsilon: 0.5, r: 0.2}
        dtype: float32
        """,
}
