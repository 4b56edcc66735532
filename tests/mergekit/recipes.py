"""Recipes of mergekit's in the shapes that people write; `~a` stands for the folder of model a."""

RECIPES = {
    "linear of three": """
        merge_method: linear
        models:
          - {model: ~a, parameters: {weight: 1.0}}
          - {model: ~b, parameters: {weight: 0.3}}
          - {model: ~c, parameters: {weight: 0.5}}
        dtype: float16
        """,
    "linear that is not normalized, with gradients and a weight for all": """
        merge_method: linear
        models:
          - {model: ~a, parameters: {weight: [0, 1]}}
          - {model: ~b, parameters: {weight: [{filter: mlp, value: [1, 0.25, 0.5]}]}}
          - model: ~c
        parameters: {weight: 0.125, normalize: false}
        """,
    "linear with a base among the models": """
        merge_method: linear
        base_model: ~b
        models:
          - {model: ~a, parameters: {weight: 2}}
          - {model: ~b, parameters: {weight: 3}}
        """,
    "linear with a base that is added": """
        merge_method: linear
        base_model: ~c
        models: [{model: ~a}, {model: ~b, parameters: {weight: 3}}]
        parameters: {weight: 1}
        """,
    "slerp in one slice": """
        slices:
          - sources:
              - {model: ~a, layer_range: [0, 6]}
              - {model: ~b, layer_range: [0, 6]}
        merge_method: slerp
        base_model: ~a
        parameters:
          t:
            - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
            - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
            - {value: 0.5}
        dtype: bfloat16
        """,
    "slerp whose base comes second": """
        merge_method: slerp
        base_model: ~b
        models: [{model: ~a}, {model: ~b}]
        parameters: {t: [0.1, 0.9]}
        """,
    "slerp with a base that is added and one filter alone": """
        merge_method: slerp
        base_model: ~base
        models: [{model: ~a}]
        parameters:
          t: [{filter: lm_head, value: 0.75}, {filter: "*", value: 0.25}]
        """,
    "slerp of slices with settings of their own": """
        merge_method: slerp
        base_model: ~a
        slices:
          - sources: [{model: ~a, layer_range: [0, 3]}, {model: ~b, layer_range: [0, 3]}]
            parameters: {t: [0, 1]}
          - sources: [{model: ~b, layer_range: [2, 6]}, {model: ~a, layer_range: [1, 5]}]
            parameters: {t: [{filter: q_proj, value: [1, 0, 1]}]}
        parameters: {t: [{filter: mlp, value: 0.125}, {value: [0.25, 0.75]}]}
        """,
    "slerp of a single layer": """
        merge_method: slerp
        base_model: ~flat
        slices:
          - sources: [{model: ~flat, layer_range: [0, 1]}, {model: ~thin, layer_range: [0, 1]}]
        parameters: {t: [{filter: mlp, value: [0, 0.5, 1]}, {value: [0.25, 0.5, 0.75]}]}
        """,
    "slerp of slices with bases of their own": """
        merge_method: slerp
        slices:
          - sources: [{model: ~a, layer_range: [0, 3]}, {model: ~b, layer_range: [0, 3]}]
            base_model: ~b
          - sources: [{model: ~a, layer_range: [3, 6]}, {model: ~c, layer_range: [3, 6]}]
            base_model: ~a
        parameters: {t: 0.3}
        """,
    "ties": """
        merge_method: ties
        base_model: ~base
        models:
          - {model: ~a, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
          - {model: ~b, parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}}
          - model: ~c
            parameters:
              density: 0.33
              weight: [{filter: mlp, value: 0.5}, {value: 0}]
        parameters: {normalize: true, int8_mask: true}
        dtype: float16
        """,
    "ties with the base among the models and lambda": """
        merge_method: ties
        base_model: ~base
        models:
          - model: ~base
          - {model: ~a, parameters: {density: 0.5, weight: 0.5}}
          - {model: ~b, parameters: {density: 0.5, weight: 0.5}}
        parameters: {normalize: false, rescale: true, lambda: [0.5, 1.5]}
        """,
    "task arithmetic": """
        merge_method: task_arithmetic
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.3}}
          - {model: ~b, parameters: {weight: -0.5}}
        """,
    "dare_ties with a density for all": """
        merge_method: dare_ties
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.4}}
          - {model: ~b, parameters: {weight: 0.6, density: 0.9}}
        parameters: {density: [{filter: self_attn, value: [0.2, 0.8]}], int8_mask: yes}
        """,
    "dare_linear without rescaling": """
        merge_method: dare_linear
        base_model: ~base
        models: [{model: ~a, parameters: {weight: 1, density: "0.53"}}]
        parameters: {rescale: off}
        """,
    "breadcrumbs": """
        merge_method: breadcrumbs
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 1, density: 0.9, gamma: 0.02}}
          - {model: ~b, parameters: {weight: 0.5}}
        """,
    "breadcrumbs_ties": """
        merge_method: breadcrumbs_ties
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 1, density: 0.9}}
          - {model: ~b, parameters: {weight: 0.5, density: 0.9}}
        parameters: {gamma: [0.01, 0.03], lambda: {value: 0.9, filter: mlp}}
        """,
    "della": """
        merge_method: della
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 1, density: 0.7, epsilon: 0.1}}
          - {model: ~b, parameters: {weight: 1, density: 0.6}}
        parameters: {epsilon: 0.05, lambda: 1.1}
        """,
    "della_linear": """
        merge_method: della_linear
        base_model: ~base
        models: [{model: ~a, parameters: {weight: [0.5, 1]}}, {model: ~b, parameters: {weight: 1}}]
        parameters: {density: 0.5, normalize: true}
        """,
    "sce": """
        merge_method: sce
        base_model: ~base
        models: [{model: ~a}, {model: ~b}, {model: ~c}]
        parameters: {select_topk: 0.7}
        """,
    "model_stock": """
        merge_method: model_stock
        base_model: ~base
        models: [{model: ~a}, {model: ~b}, {model: ~base}]
        parameters: {filter_wise: false}
        """,
    "nuslerp": """
        merge_method: nuslerp
        models:
          - {model: ~a, parameters: {weight: [{filter: 0.mlp, value: 0.0}, {value: 0.6}]}}
          - {model: ~b, parameters: {weight: 0.4}}
        """,
    "nuslerp from a base": """
        merge_method: nuslerp
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.6}}
          - {model: ~b, parameters: {weight: [0.4, 1]}}
        """,
    "multislerp": """
        merge_method: multislerp
        base_model: ~base
        models:
          - {model: ~a, parameters: {weight: 0.6}}
          - {model: ~b, parameters: {weight: 0.4}}
          - {model: ~c, parameters: {weight: 1}}
        parameters: {normalize_weights: false, eps: 1e-9}
        """,
    "karcher": """
        merge_method: karcher
        models: [{model: ~a}, {model: ~b}, {model: ~c}]
        parameters: {max_iter: 20, tol: 1e-9}
        """,
    "karcher to which the base is added": """
        merge_method: karcher
        base_model: ~base
        models: [{model: ~a}, {model: ~b}]
        """,
    "arcee_fusion": """
        merge_method: arcee_fusion
        base_model: ~base
        models: [{model: ~base}, {model: ~a}]
        """,
    "nearswap": """
        merge_method: nearswap
        base_model: ~base
        models: [{model: ~a}]
        parameters: {t: [0.0001, 0.01]}
        """,
    "ram": """
        merge_method: ram
        base_model: ~base
        models: [{model: ~a}, {model: ~b}]
        parameters: {epsilon: 1e-6}
        """,
    "ramplus_tl": """
        merge_method: ramplus_tl
        base_model: ~base
        models: [{model: ~a}, {model: ~b}]
        parameters: {r: 0.2, alpha: [0.1, 0.3]}
        """,
    "passthrough of slices": """
        merge_method: passthrough
        slices:
          - sources: [{model: ~a, layer_range: [0, 4]}]
          - sources: [{model: ~deep, layer_range: [2, 6]}]
          - sources: [{model: ~a, layer_range: [1, 6]}]
        dtype: bfloat16
        """,
    "passthrough with scaled slices": """
        merge_method: passthrough
        slices:
          - sources: [{model: ~a, layer_range: [0, 4]}]
          - sources:
              - model: ~a
                layer_range: [3, 5]
                parameters:
                  scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0}, {value: 1}]
          - sources: [{model: ~a, layer_range: [3, 6], parameters: {scale: [0.5, 1]}}]
        """,
    "passthrough of a whole model": """
        merge_method: passthrough
        base_model: ~a
        models: [{model: ~a}]
        dtype: float32
        """,
    "passthrough of a whole model, scaled where a filter says": """
        merge_method: passthrough
        models: [{model: ~a, parameters: {scale: {filter: up_proj, value: [0, 2]}}}]
        """,
    "filters that name layers, by their index in each source": """
        merge_method: ties
        base_model: ~deep
        slices:
          - sources:
              - {model: ~deep, layer_range: [0, 4]}
              - {model: ~a, layer_range: [2, 6], parameters: {weight: [
                  {filter: layers.3., value: 0.25}, {filter: layers.4.mlp, value: [0, 1]},
                  {value: 0.5}]}}
          - sources:
              - {model: ~deep, layer_range: [4, 9]}
              - {model: ~a, layer_range: [1, 6], parameters: {weight: [
                  {filter: layers.5, value: 0.75}, {value: 1}]}}
        parameters: {density: [{filter: layers.3., value: 0.125}, {value: 0.5}]}
        """,
    "filters of the merge that name layers, by their index in the output": """
        merge_method: slerp
        base_model: ~a
        slices:
          - sources: [{model: ~a, layer_range: [0, 3]}, {model: ~b, layer_range: [3, 6]}]
          - sources: [{model: ~a, layer_range: [0, 6]}, {model: ~b, layer_range: [0, 6]}]
        parameters:
          t:
            - {filter: layers.5., value: 0.875}
            - {filter: layers.1, value: 0.125}
            - {value: 0.5}
        """,
    "a module": """
        merge_method: task_arithmetic
        base_model: ~base
        modules:
          default:
            slices:
              - sources:
                  - {model: ~base, layer_range: [0, 6]}
                  - model: ~a
                    layer_range: [0, 6]
                    parameters: {weight: [{filter: mlp, value: 1}]}
                  - {model: ~b, layer_range: [0, 6]}
                parameters: {weight: [{filter: norm, value: 0.5}]}
            parameters: {weight: [{filter: self_attn, value: [0, 0.5]}]}
        parameters: {weight: 0.25, lambda: 0.5}
        """,
}
